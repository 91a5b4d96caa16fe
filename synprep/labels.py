"""Label values of a mask, their names, and which channel of a tensor is the mask."""

BACKGROUND = 0
PRESYNAPTIC = 1
CLEFT = 2
POSTSYNAPTIC = 3

NAMES = {
    BACKGROUND: "background",
    PRESYNAPTIC: "presynaptic",
    CLEFT: "cleft",
    POSTSYNAPTIC: "postsynaptic",
}

# The seed notebook's names of the labels, which are the keys of the parameter `seg_mask_map`.
MASK_KEYS = {
    "MASK_PRE_SYNAPTIC_NEURON": PRESYNAPTIC,
    "MASK_SYNAPTIC_CLEFT": CLEFT,
    "MASK_POST_SYNAPTIC_NEURON": POSTSYNAPTIC,
}

MASK_CHANNEL = -1
