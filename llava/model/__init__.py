"""HOW it is cut, and the models themselves: surgery, token layout, accounting, families, loading, prompts."""
