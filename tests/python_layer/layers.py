"""Layers as old projects have them: written for pycaffe, and run here unchanged."""

import caffe
import numpy as np

CALLS = []  # what was called in which order, for those layers that say so


class EuclideanLossLayer(caffe.Layer):
    """Half the squared distance a row; after Caffe's own example, in words of our own."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("two bottoms are needed")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("the bottoms are of different sizes")
        self.difference = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate([1, -1]):
            if propagate_down[i]:
                scale = sign * top[0].diff[0] / bottom[i].num
                bottom[i].diff[...] = scale * self.difference


class Times(caffe.Layer):
    """x times the number in param_str; works in place as well."""

    def setup(self, bottom, top):
        self.factor = float(self.param_str_ or self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff


class Butterfly(caffe.Layer):
    """a + b and a - b."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data + bottom[1].data
        top[1].data[...] = bottom[0].data - bottom[1].data

    def backward(self, top, propagate_down, bottom):
        CALLS.append(("butterfly", list(propagate_down)))
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff + top[1].diff
        if propagate_down[1]:
            bottom[1].diff[...] = top[0].diff - top[1].diff


class Affine(caffe.Layer):
    """A learned factor and a learned term for each channel: Scale with a bias."""

    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = 1

    def reshape(self, bottom, top):
        top[0].reshape(bottom[0].num, bottom[0].channels, bottom[0].height, bottom[0].width)

    def forward(self, bottom, top):
        factor, term = (blob.data.reshape(1, -1, 1, 1) for blob in self.blobs)
        top[0].data[...] = factor * bottom[0].data + term

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum((0, 2, 3))
        self.blobs[1].diff[...] += top[0].diff.sum((0, 2, 3))
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data.reshape(1, -1, 1, 1)


class Digits(caffe.Layer):
    """Data and labels, the next ones in each pass; it loads them in reshape, as FCN's layers do."""

    def setup(self, bottom, top):
        self.index = 0

    def reshape(self, bottom, top):
        rng = np.random.default_rng(self.index)
        self.data, self.label = rng.normal(size=(4, 1, 6, 6)), rng.integers(0, 3, 4)
        top[0].reshape(*self.data.shape)
        top[1].reshape(*self.label.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.data
        top[1].data[...] = self.label
        self.index += 1

    def backward(self, top, propagate_down, bottom):
        pass


class Count(caffe.Layer):
    """How often it was called, and in which phase."""

    def setup(self, bottom, top):
        self.calls = 0

    def reshape(self, bottom, top):
        top[0].reshape(2)

    def forward(self, bottom, top):
        self.calls += 1
        top[0].data[...] = self.calls, self.phase == caffe.TEST

    def backward(self, top, propagate_down, bottom):
        raise AssertionError("there is nothing to propagate to")


class Sink(caffe.Layer):
    """Has no top: only what it does besides counts."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        CALLS.append((self.param_str, str(self.phase), float(bottom[0].data.sum())))


class Broken(caffe.Layer):
    """Fails in the method that param_str names, in the way that its second word says."""

    def setup(self, bottom, top):
        self.where, self.how = self.param_str.split()
        self.passes = 0
        self.fail("setup")

    def fail(self, method):
        if method != self.where:
            return
        if self.how == "interrupt":
            raise KeyboardInterrupt
        if self.how == "exit":
            raise SystemExit(7)
        raise ZeroDivisionError(f"in {method}")  # the line that the message shows

    def reshape(self, bottom, top):
        self.fail("reshape")
        grown = self.where == "grow" and self.passes > 0
        top[0].reshape(*(n + grown for n in bottom[0].shape))
        if self.where == "learn" and self.passes > 0:
            self.blobs.add_blob(1)

    def forward(self, bottom, top):
        self.passes += 1
        self.fail("forward")
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.fail("backward")
        bottom[0].diff[...] = top[0].diff


class Shapeless(caffe.Layer):
    """Forgets the shape of its top."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        pass


class Trains(Affine):
    """Changes its learned blob by itself, which is the solver's work."""

    def forward(self, bottom, top):
        super().forward(bottom, top)
        self.blobs[0].data[...] *= 0.9


class Plain:
    """No layer: derived from nothing."""


class Tiny(caffe.Layer):
    """Whether numbers below the least normal one survive: they must, as everywhere in Python."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        tiny = np.full(64, 1e-30, np.float32) * np.float32(1e-10)
        top[0].data[...] = np.count_nonzero(tiny)
