"""SSD300-VGG16, the paper's second detector, behind the seam of `worker.miaod.detector`.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, with MI-AOD's two classifiers and
image-level tower on top, as the reference has them. `vgg.py` and `network.py` are the network,
`anchors.py` and `targets.py` what its anchors are and should say, `losses.py` what it is trained
by.
"""
