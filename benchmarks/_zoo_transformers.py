"""Architectures of Hugging Face transformers, small and from their configs: nothing is downloaded.

Sizes are chosen so that a model's body outweighs its embeddings, as it does at full size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

Example = dict[str, Tensor]

TOKENS = 16
VOCABULARY = 128


def text() -> Example:
    """Two sequences of tokens, all of them valid."""
    tokens = torch.randint(4, VOCABULARY, (2, TOKENS))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def padded_text() -> Example:
    """Two sequences of tokens, the second one padded."""
    example = text()
    example["attention_mask"][1, TOKENS // 2 :] = 0
    return example


def two_texts() -> Example:
    """Tokens for an encoder and for a decoder."""
    return text() | {"decoder_input_ids": torch.randint(4, VOCABULARY, (2, 8))}


def image(pixels: int = 32) -> Example:
    """Two images."""
    return {"pixel_values": torch.randn(2, 3, pixels, pixels)}


def image_and_text() -> Example:
    """Two images and two sequences of tokens."""
    return image() | text()


def wave() -> Example:
    """Two waveforms."""
    return {"input_values": torch.randn(2, 1600)}


def spectrogram() -> Example:
    """Two spectrograms, and tokens for a decoder."""
    return {
        "input_features": torch.randn(2, 16, 40),
        "decoder_input_ids": torch.randint(4, VOCABULARY, (2, 8)),
    }


@dataclass(frozen=True, slots=True)
class _Entry:
    """One architecture.

    Attributes:
        model: Name of the model class in transformers.
        config: Name of its config class.
        example: Makes the inputs.
        sizes: Arguments of the config.
    """

    model: str
    config: str
    example: Callable[[], Example]
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Build the model with random weights."""
        config = getattr(transformers, self.config)(**self.sizes)
        built: nn.Module = getattr(transformers, self.model)(config)
        return built.eval()


_BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
_LLAMA = {**_BERT, "num_key_value_heads": 2, "pad_token_id": 0}
_GPT = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
_BART = {
    "vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128, "max_position_embeddings": 64, "pad_token_id": 1,
    "decoder_start_token_id": 2,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2,
    "num_heads": 4, "decoder_start_token_id": 0,
}  # fmt: skip
_VIT = {
    "image_size": 32, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128,
}  # fmt: skip
_WAVE = {
    **_BERT, "conv_dim": (32, 32), "conv_stride": (5, 4), "conv_kernel": (10, 4),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "pad_token_id": 0,
}  # fmt: skip
_TOWERS = {
    "text_config": {**_BERT, "projection_dim": 32, "eos_token_id": 2, "pad_token_id": 1},
    "vision_config": {**_VIT, "projection_dim": 32},
}

_ENTRIES: dict[str, _Entry] = {
    # encoders
    "bert": _Entry("BertForSequenceClassification", "BertConfig", padded_text, _BERT),
    "roberta": _Entry(
        "RobertaForMaskedLM", "RobertaConfig", padded_text, {**_BERT, "pad_token_id": 1}
    ),
    "distilbert": _Entry(
        "DistilBertForSequenceClassification", "DistilBertConfig", padded_text,
        {"vocab_size": VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128,
         "max_position_embeddings": 64},
    ),
    "electra": _Entry(
        "ElectraForPreTraining", "ElectraConfig", text, {**_BERT, "embedding_size": 32}
    ),
    "deberta_v2": _Entry(
        "DebertaV2ForSequenceClassification", "DebertaV2Config", padded_text,
        {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
         "position_buckets": 8, "type_vocab_size": 0},
    ),
    "albert": _Entry(
        "AlbertForSequenceClassification", "AlbertConfig", text, {**_BERT, "embedding_size": 32}
    ),
    "modernbert": _Entry(
        "ModernBertForMaskedLM", "ModernBertConfig", text,
        {**_BERT, "pad_token_id": 0, "global_attn_every_n_layers": 2, "local_attention": 8},
    ),
    # decoders
    "gpt2": _Entry("GPT2LMHeadModel", "GPT2Config", text, _GPT),
    "gpt_neo": _Entry(
        "GPTNeoForCausalLM", "GPTNeoConfig", text,
        {"vocab_size": VOCABULARY, "hidden_size": 64, "num_layers": 2, "num_heads": 4,
         "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    ),
    "gpt_neox": _Entry("GPTNeoXForCausalLM", "GPTNeoXConfig", text, _BERT),
    "gptj": _Entry("GPTJForCausalLM", "GPTJConfig", text, {**_GPT, "rotary_dim": 8}),
    "bloom": _Entry(
        "BloomForCausalLM", "BloomConfig", text,
        {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    ),
    "opt": _Entry(
        "OPTForCausalLM", "OPTConfig", text,
        {**_BERT, "ffn_dim": 128, "word_embed_proj_dim": 64},
    ),
    "llama": _Entry("LlamaForCausalLM", "LlamaConfig", text, _LLAMA),
    "qwen2": _Entry("Qwen2ForCausalLM", "Qwen2Config", text, _LLAMA),
    "qwen3": _Entry("Qwen3ForCausalLM", "Qwen3Config", text, {**_LLAMA, "head_dim": 16}),
    "mistral": _Entry(
        "MistralForCausalLM", "MistralConfig", text, {**_LLAMA, "sliding_window": 8}
    ),
    "phi3": _Entry("Phi3ForCausalLM", "Phi3Config", text, _LLAMA),
    "gemma2": _Entry(
        "Gemma2ForCausalLM", "Gemma2Config", text,
        {**_LLAMA, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8},
    ),
    "gemma3": _Entry(
        "Gemma3ForCausalLM", "Gemma3TextConfig", text,
        {**_LLAMA, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8},
    ),
    "falcon": _Entry("FalconForCausalLM", "FalconConfig", text, _BERT),
    "mixtral": _Entry(
        "MixtralForCausalLM", "MixtralConfig", text,
        {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen2_moe": _Entry(
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", text,
        {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
         "shared_expert_intermediate_size": 64},
    ),
    "qwen3_moe": _Entry(
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig", text,
        {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
         "head_dim": 16},
    ),
    "olmoe": _Entry(
        "OlmoeForCausalLM", "OlmoeConfig", text,
        {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "granitemoe": _Entry(
        "GraniteMoeForCausalLM", "GraniteMoeConfig", text,
        {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "gpt_oss": _Entry(
        "GptOssForCausalLM", "GptOssConfig", text,
        {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
         "layer_types": ["full_attention", "full_attention"]},
    ),
    "deepseek_v3": _Entry(
        "DeepseekV3ForCausalLM", "DeepseekV3Config", text,
        {**_LLAMA, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 64, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
         "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
         "v_head_dim": 16},
    ),
    "phimoe": _Entry(
        "PhimoeForCausalLM", "PhimoeConfig", text,
        {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "jamba": _Entry(
        "JambaForCausalLM", "JambaConfig", text,
        {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False,
         "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 1,
         "expert_layer_offset": 0},
    ),
    "switch_transformers": _Entry(
        "SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", two_texts,
        {**_T5, "num_decoder_layers": 2, "num_experts": 4, "num_sparse_encoder_layers": 1,
         "num_sparse_decoder_layers": 1},
    ),
    "mamba": _Entry(
        "MambaForCausalLM", "MambaConfig", text,
        {"vocab_size": VOCABULARY, "hidden_size": 64, "state_size": 8, "num_hidden_layers": 2},
    ),
    # encoder-decoders
    "t5": _Entry("T5ForConditionalGeneration", "T5Config", two_texts, _T5),
    "bart": _Entry("BartForConditionalGeneration", "BartConfig", two_texts, _BART),
    "marian": _Entry("MarianMTModel", "MarianConfig", two_texts, _BART),
    # vision
    "vit": _Entry("ViTForImageClassification", "ViTConfig", image, _VIT),
    "deit": _Entry("DeiTForImageClassification", "DeiTConfig", image, _VIT),
    "beit": _Entry("BeitForImageClassification", "BeitConfig", image, _VIT),
    "swin": _Entry(
        "SwinForImageClassification", "SwinConfig", image,
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2],
         "num_heads": [2, 4], "window_size": 4},
    ),
    "convnext": _Entry(
        "ConvNextForImageClassification", "ConvNextConfig", image,
        {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64]},
    ),
    "convnextv2": _Entry(
        "ConvNextV2ForImageClassification", "ConvNextV2Config", lambda: image(64),
        {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64]},
    ),
    "resnet": _Entry(
        "ResNetForImageClassification", "ResNetConfig", image,
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2]},
    ),
    "segformer": _Entry(
        "SegformerForSemanticSegmentation", "SegformerConfig", image,
        {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64],
         "num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 32},
    ),
    "dinov2": _Entry(
        "Dinov2ForImageClassification", "Dinov2Config", image, {**_VIT, "mlp_ratio": 2}
    ),
    # speech
    "wav2vec2": _Entry("Wav2Vec2ForCTC", "Wav2Vec2Config", wave, _WAVE),
    "hubert": _Entry("HubertForCTC", "HubertConfig", wave, _WAVE),
    "whisper": _Entry(
        "WhisperForConditionalGeneration", "WhisperConfig", spectrogram,
        {**_BART, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 16,
         "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2},
    ),
    # multimodal
    "clip": _Entry("CLIPModel", "CLIPConfig", image_and_text, {**_TOWERS, "projection_dim": 32}),
    "siglip": _Entry("SiglipModel", "SiglipConfig", image_and_text, _TOWERS),
    "blip": _Entry(
        "BlipForImageTextRetrieval", "BlipConfig", image_and_text,
        {"text_config": {**_BERT, "encoder_hidden_size": 64}, "vision_config": _VIT,
         "image_text_hidden_size": 32},
    ),
    "llava": _Entry("LlavaForConditionalGeneration", "LlavaConfig", lambda: _llava(), {
        "vision_config": {**_VIT, "model_type": "clip_vision_model"},
        "text_config": {**_LLAMA, "model_type": "llama"},
        "image_token_index": 3, "vision_feature_layer": -1,
    }),
}  # fmt: skip


def _llava() -> Example:
    example = image() | text()
    example["input_ids"][:, :16] = 3
    return example


def transformers_models() -> list[tuple[str, Callable[[], nn.Module], Example]]:
    """List the architectures.

    Returns:
        (name, builds the model, keyword arguments of its forward) for each.
    """
    torch.manual_seed(0)
    return [(name, entry.build, entry.example()) for name, entry in _ENTRIES.items()]
