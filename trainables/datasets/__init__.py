"""Datasets: which ones are on this machine, how they are read, recorded and imported, and the minibatches drawn from them."""
