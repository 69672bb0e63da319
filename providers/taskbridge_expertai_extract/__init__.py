"""expert.ai Extract for taskbridge."""

from .provider import ExpertAiExtract, ExpertAiExtractSettings
from .wire import Word, decode_words

__all__ = ["ExpertAiExtract", "ExpertAiExtractSettings", "Word", "decode_words"]
