"""Images in memory, and the batches drawn from them.

A `Source` (source.py; one file per kind: digits.py, huggingface.py) knows the shape, the classes and the
channel statistics of a data set without reading it, can check cheaply that the data can be found, and loads
them once, as tensors for training and test. `ImageData` (module.py) is the only LightningDataModule: it takes
a stratified validation part from the training images (splits.py), lets a sampler choose the rows of every
batch (sampler.py), and fetches each batch with one indexing operation (batches.py), augmented if it is a
training batch (augment.py). It tells what was read (description.py);
fingerprint.py says what data are, wherever they came from.

Local folders are read where they are, and nothing is cached: layout.py finds the files of each split by the names
at the top level, classfolders.py and tables.py list what is in them, with the place of every image and one
numbering of the classes, and encoded.py and images.py decode it or refuse it by file or row.

Nothing here depends on global random state, and nothing is normalized: pixels are in [0, 1], where the
perturbation radius is measured, and normalization is the first layer of a network.

To add a data set that Hugging Face `datasets` can read, write one YAML in conf/data. To add another kind of
data, write one file with a subclass of `Source`.
"""
