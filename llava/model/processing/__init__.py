"""From prompts, images and videos to model inputs: one processor for each family, what they share in `base`."""

from llava.model.processing.base import ImageSource, Processor, VideoSource, check_count
from llava.model.processing.pieces import Pieces

__all__ = ["ImageSource", "Pieces", "Processor", "VideoSource", "check_count"]
