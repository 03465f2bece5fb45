"""From records to one page and its plots."""
