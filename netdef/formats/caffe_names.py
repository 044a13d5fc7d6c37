"""Names of Caffe's text formats: layer types, parameter blocks, and their older spellings."""

from __future__ import annotations

TYPES = frozenset(
    """
    AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss Convolution
    Crop Data Deconvolution Dropout DummyData Eltwise ELU Embed EuclideanLoss Exp Filter Flatten
    HDF5Data HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input Log LRN LSTM
    LSTMUnit MemoryData MultinomialLogisticLoss MVN Parameter Pooling Power PReLU Python Reduction
    ReLU Reshape RNN Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss
    Split SPP Swish TanH Threshold Tile WindowData
    """.split()
)
BLOCKS = frozenset(
    f"{name}_param"
    for name in """
    transform loss accuracy argmax batch_norm bias clip concat contrastive_loss convolution crop
    data dropout dummy_data eltwise elu embed exp flatten hdf5_data hdf5_output hinge_loss
    image_data infogain_loss inner_product input log lrn memory_data mvn parameter pooling power
    prelu python recurrent reduction relu reshape scale sigmoid softmax spp slice swish tanh
    threshold tile window_data
    """.split()
)
# Blocks that a type reads beside the one of its own name.
_FURTHER = {
    "convolution_param": "Deconvolution Im2col",
    "recurrent_param": "LSTM RNN",
    "softmax_param": "SoftmaxWithLoss InfogainLoss",
    "sigmoid_param": "SigmoidCrossEntropyLoss",
    "loss_param": "SoftmaxWithLoss InfogainLoss SigmoidCrossEntropyLoss",
    "transform_param": "Data ImageData HDF5Data MemoryData WindowData",
}
# The fields inside Caffe's blocks that are written once, but for the REPEATED.
FIELDS = frozenset(
    """
    across_channels alpha axis backend base batch_size beta bg_threshold bias_filler bias_term
    cache_images channel_shared channels coeff concat_dim context_pad crop_mode crop_size
    debug_info dropout_ratio end_axis engine eps expose_hidden fg_fraction fg_threshold file_name
    filler force_color force_encoded_color force_gray force_nd_im2col global_pooling group height
    ignore_label input_dim is_color k kernel_h kernel_size kernel_w layer legacy_version local_size
    margin max mean mean_file min mirror module moving_average_fraction negative_slope new_height
    new_width norm norm_region normalization normalize normalize_variance num_axes num_output
    operation out_max_val pad pad_h pad_w param_str pool power prefetch pyramid_height rand_skip
    root_folder round_mode scale shape share_in_parallel shift shuffle slice_dim source sparse
    stable_prod_grad std stride stride_h stride_w threshold tiles top_k transpose type
    use_global_stats value variance_norm weight_filler width
    """.split()
)
# The fields inside blocks that may be written several times.
REPEATED = frozenset(
    "mean_value pad kernel_size stride dilation offset data_filler shape num channels height width "
    "coeff slice_point dim".split()
)
LAYER_FIELDS = frozenset(
    "name type bottom top phase loss_weight param blobs propagate_down include exclude".split()
)
NET_FIELDS = frozenset(
    "name input input_shape input_dim force_backward state debug_info layer layers".split()
)


def reads(kind: str, block: str) -> bool:
    """Returns whether a layer of this type reads this block."""
    if block.removesuffix("_param").replace("_", "") == kind.casefold():
        return True
    return kind in _FURTHER.get(block, "").split()


# V1: the words of its enum that are not just the type in capitals and underscores, and C3D's.
_V1_WORDS = (
    "SOFTMAX_LOSS=SoftmaxWithLoss CONVOLUTION3D=Convolution3D POOLING3D=Pooling3D "
    "DECONVOLUTION3D=Deconvolution3D"
)
V1_TYPES = dict(pair.split("=") for pair in _V1_WORDS.split()) | {
    word: kind
    for word in """
    ABSVAL ACCURACY ARGMAX BNLL CONCAT CONTRASTIVE_LOSS CONVOLUTION DATA DECONVOLUTION DROPOUT
    DUMMY_DATA EUCLIDEAN_LOSS ELTWISE EXP FLATTEN HDF5_DATA HDF5_OUTPUT HINGE_LOSS IM2COL
    IMAGE_DATA INFOGAIN_LOSS INNER_PRODUCT LRN MEMORY_DATA MULTINOMIAL_LOGISTIC_LOSS MVN POOLING
    POWER RELU SIGMOID SIGMOID_CROSS_ENTROPY_LOSS SILENCE SOFTMAX SPLIT SLICE TANH WINDOW_DATA
    THRESHOLD
    """.split()
    for kind in TYPES
    if kind.casefold() == word.replace("_", "").casefold()
}
V0_TYPES = {
    "conv": "Convolution",
    "pool": "Pooling",
    "images": "ImageData",
    "innerproduct": "InnerProduct",
} | {
    word.lower(): kind
    for word, kind in V1_TYPES.items()
    if word not in ("CONVOLUTION", "POOLING", "IMAGE_DATA", "INNER_PRODUCT")
}
V0_FIELDS = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "shuffle_images": "shuffle",
    "det_fg_threshold": "fg_threshold",
    "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
} | {
    name: name
    for name in "num_output weight_filler bias_filler pad group stride pool dropout_ratio "
    "local_size alpha beta k source scale mirror rand_skip new_height new_width concat_dim".split()
}
