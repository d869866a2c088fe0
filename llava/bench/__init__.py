"""Speed measured honestly: methods interleaved with the unpruned model in one process, warm-up, synchronised, median and spread."""
