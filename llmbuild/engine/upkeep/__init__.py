"""Operations on a whole store: surveying, collecting, checking, packing and unpacking."""
