"""What is asked of one function and its inputs: the reference, the native result, bounds."""
