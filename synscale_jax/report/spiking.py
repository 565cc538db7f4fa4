"""Tables and figures of the spiking network."""
def mnist_tables(results, smoke): return str(results)
def mnist_figures(*a): pass
