"""Parameters of descriptors learnt from how well structures are predicted without their own labels."""
