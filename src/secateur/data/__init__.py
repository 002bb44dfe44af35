"""Reference data sets, held as uint8 tensors, and the batches made of them."""

from secateur.data._augment import Augment, Crops, crop_and_flip
from secateur.data._batches import Batches
from secateur.data._dataset import Dataset, Images, PartName, Split, in_memory_dataset
from secateur.data._image_folder import FolderImages
from secateur.data._load import Source, available, load

__all__ = [
    "Augment",
    "Batches",
    "Crops",
    "Dataset",
    "FolderImages",
    "Images",
    "PartName",
    "Source",
    "Split",
    "available",
    "crop_and_flip",
    "in_memory_dataset",
    "load",
]
