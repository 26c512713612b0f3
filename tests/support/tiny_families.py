"""Makes bases of all families that are small enough for tests, in diffusers' layout, with random weights and without any file from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from benchmarks.random_base import END, START

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LETTERS = sorted(ByteLevel.alphabet())
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def _clip_tokenizer() -> Any:
    names = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), START, END]
    return transformers.CLIPTokenizer(
        vocab={name: i for i, name in enumerate(names)},
        merges=[],
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=77,
    )


def _t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((chr(c), -3.0) for c in range(33, 127))]
    return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def _qwen_tokenizer() -> Any:
    names = [*LETTERS, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={name: i for i, name in enumerate(names)},
        merges=[],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=4096,
        eos_token="<|im_end|>",  # noqa: S106 - a token of text
        pad_token="<|endoftext|>",  # noqa: S106
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def _clip(tokenizer: Any, projection: int | None = None, act: str = "quick_gelu") -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=projection or 32,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def _qwen3(tokenizer: Any, kind: Any, layers: int) -> Any:
    return kind(
        transformers.Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=2048,
        )
    )


def _vae(kind: Any = diffusers.AutoencoderKL, **values: Any) -> Any:
    return kind(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        **values,
    )


def _flow_vae() -> Any:
    return _vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1159, scaling_factor=0.3611)


def _unet(**values: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **values,
    )


def _stable_diffusion() -> Any:
    tokenizer = _clip_tokenizer()
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        unet=_unet(cross_attention_dim=32, attention_head_dim=8),
        tokenizer=tokenizer,
        text_encoder=_clip(tokenizer),
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, **NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl() -> Any:
    first, second = _clip_tokenizer(), _clip_tokenizer()
    unet = _unet(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(),
        unet=unet,
        tokenizer=first,
        tokenizer_2=second,
        text_encoder=_clip(first),
        text_encoder_2=_clip(second, projection=32, act="gelu"),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **NOISE),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _stable_diffusion_3() -> Any:
    first, second, third = _clip_tokenizer(), _clip_tokenizer(), _t5_tokenizer()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=24,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(third),
            d_model=64,
            d_kv=8,
            d_ff=37,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            tie_word_embeddings=False,
        )
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_flow_vae(),
        tokenizer=first,
        tokenizer_2=second,
        tokenizer_3=third,
        text_encoder=_clip(first, projection=32),
        text_encoder_2=_clip(second, projection=32, act="gelu"),
        text_encoder_3=t5,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux2_klein() -> Any:
    tokenizer = _qwen_tokenizer()
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = _vae(diffusers.AutoencoderKLFlux2)
    vae.bn.running_mean.normal_(0, 0.1)  # not 0 and 1, or a forgotten normalisation would not be seen
    vae.bn.running_var.uniform_(0.5, 2)
    return diffusers.Flux2KleinPipeline(
        transformer=transformer,
        vae=vae,
        tokenizer=tokenizer,
        text_encoder=_qwen3(
            tokenizer, transformers.Qwen3ForCausalLM, 28
        ),  # of which hidden states 9, 18 and 27 are read
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, time_shift_type="exponential"
        ),
        is_distilled=False,
    )


def _z_image() -> Any:
    tokenizer = _qwen_tokenizer()
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    with torch.no_grad():
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.normal_()  # the constructor leaves them as memory was
    return diffusers.ZImagePipeline(
        transformer=transformer,
        vae=_flow_vae(),
        tokenizer=tokenizer,
        text_encoder=_qwen3(tokenizer, transformers.Qwen3Model, 3),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


PIPELINES: Mapping[str, Callable[[], Any]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "Flux2KleinPipeline": _flux2_klein,
    "ZImagePipeline": _z_image,
}
"""Maps pipelines to functions that make one; images of 32 pixels have latents of 16."""


def tiny_base(pipeline: str, folder: Path, **how: Any) -> Path:
    """Writes a base of a family into `folder` and returns it; `how` goes to `save_pretrained`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        PIPELINES[pipeline]().save_pretrained(folder, **how)
    return folder
