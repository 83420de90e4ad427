"""Training-time defences that DCD is compared with: one file each, behind one small interface."""
