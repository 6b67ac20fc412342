"""What is done to rows before a model and to answers behind it, packed with the model."""
