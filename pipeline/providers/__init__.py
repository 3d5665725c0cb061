"""The only package that opens connections: one module per provider behind `base.Provider`."""
