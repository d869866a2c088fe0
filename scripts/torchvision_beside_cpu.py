"""Lets PyPI's torchvision be imported beside a CPU build of torch; vllm_test.sh copies it into its environment.

PyPI has torchvision only as built for CUDA. Beside a CPU torch its compiled operations do not load, and its import
fails because it looks for two of them. The transforms that transformers' image processors use are plain Python and
work once those two are declared, which is done here right before torchvision is first imported.
"""

import sys

OPERATIONS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class Declaring:
    """An import hook that finds nothing itself."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if not torch.backends.cuda.is_built():
                self.library = torch.library.Library("torchvision", "FRAGMENT")  # declared for as long as it is kept
                for operation in OPERATIONS:
                    self.library.define(operation)
                sys.modules[__name__].hook = self
        return None


sys.meta_path.insert(0, Declaring())
