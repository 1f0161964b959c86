"""What leaves a device, and what protects it. Can be audited by itself: arrays in, arrays out."""
