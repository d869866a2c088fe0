"""What the kept tokens are: bounds on what is lost, overlap between methods, position bias, objects they lie on."""
