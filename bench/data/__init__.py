"""Which images does a trial train on, and how do they reach the device?

`datasets` reads the trial's data set (PASCAL VOC through `voc`) into a `dataset.DataSet`: uint8 tensors on the CPU.
`pipeline` makes micro-batches of it on the device, with the augmentations of `augment`. `loader` has the DataLoader
workers that it may use, and `augment_sheet` draws augmentations.
"""
