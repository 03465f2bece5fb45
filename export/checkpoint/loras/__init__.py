"""LoRAs: read, checked against the U-Net that they are for, and merged into it."""
