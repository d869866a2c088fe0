"""The web demo: one image, one question, several methods side by side with the unpruned model."""
