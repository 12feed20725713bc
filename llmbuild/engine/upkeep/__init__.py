"""What is done with a store as a whole: what lies in it, collecting, checking, packing and unpacking."""
