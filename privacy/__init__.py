"""What leaves a device, and what protects it. Auditable alone: arrays in, arrays out."""
