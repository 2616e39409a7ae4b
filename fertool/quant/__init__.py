"""INT8 quantisation after training: ranges measured on a few hundred faces, integers computed from them."""

from fertool.quant.calibrate import QuantizeConfig, quantize_model

__all__ = ["QuantizeConfig", "quantize_model"]
