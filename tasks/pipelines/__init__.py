"""What ordinary and hostile trainers do with images that they were given: one file each."""
