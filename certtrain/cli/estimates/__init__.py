"""What a generation, a training or the jobs of a sweep would take, from a few timed steps on images of noise.

Imports `assembly` and `configuration`; reads no data, writes nothing.
"""
