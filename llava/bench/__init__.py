"""Speed measured honestly: methods interleaved with the unpruned model in one process, median and spread."""
