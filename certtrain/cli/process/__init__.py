"""What every process of the command settles for itself: threads, memory, imports, output, and signs of life.

Belongs here: what knows nothing of configurations and runs. Imports nothing of `certtrain.cli`.
"""
