"""Which images does a trial train on, and how do they reach the device?

`datasets` reads the trial's data set into a `dataset.DataSet`: uint8 tensors on the CPU (PASCAL VOC through `voc`), or
`image_files`, which are read when they are asked for, of the `class_folders` on a disk.
`pipeline` makes micro-batches of it on the device, with the augmentations of `augment`. `loader` has the DataLoader
workers that it may use, and `augment_sheet` draws augmentations.
"""
