"""Tables and figures from result files; pictures of the kept tokens."""
