"""The paper's Table 1 on photographs: faces that are found, compared, and prompts that are kept."""
