"""What is wrong with a manifest and what it offers, before anything runs; reads no image."""
