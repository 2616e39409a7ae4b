"""Every option of fertool, written down once; imports no torch."""
