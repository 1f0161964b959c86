"""What the owner of a device does with it: lists, feedback, profile, export, forgetting. For commands and pages."""
