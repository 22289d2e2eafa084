"""What is done with a trained density; each analysis works on any model that has what it needs."""
