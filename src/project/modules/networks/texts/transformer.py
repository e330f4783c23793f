"""A pretrained language model with a new head."""

from torch import Tensor, nn

from project.modules.networks.texts.language_model import build_encoder, longest, read_encoder, read_model
from project.texts import TextInput, TokenInput


class Transformer(nn.Module):
    """A pretrained encoder such as BERT, the mean over its tokens, and a new head; requires the extra `language`.

    A new run reads weights, tokenizer and config of the pretrained model; afterwards they are in the checkpoint.

    Args:
        num_classes: Number of classes.
        inputs: Description of the texts; of a trained model, with its tokenizer and config.
        name: Folder with config.json, tokenizer.json and model.safetensors, or a name of the Hugging Face hub.
        max_tokens: Longer texts are cut after this number of tokens.
        lora: Rank of low-rank adapters of all linear layers, which are trained instead of the encoder; 0 trains the
            encoder itself. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022.
        dropout: Dropout probability before the head, in [0, 1). Above 0, features of a frozen encoder are not cached.

    Raises:
        ValueError: The model is not an encoder, or an argument is out of range.
        UserError: The pretrained model cannot be found or read.
    """

    def __init__(
        self,
        num_classes: int,
        inputs: TextInput,
        name: str,
        max_tokens: int = 256,
        lora: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if lora < 0:
            raise ValueError(f"lora must be at least 0, got {lora}")
        self.name = name
        self.inputs = inputs if isinstance(inputs, TokenInput) else read_model(name, inputs, max_tokens)
        if max_tokens != self.inputs.max_tokens:
            raise ValueError(f"the model was trained with max_tokens {self.inputs.max_tokens}, got {max_tokens}")
        self.encoder = build_encoder(self.inputs.config)
        if max_tokens > (most := longest(self.encoder, self.inputs.config)):
            raise ValueError(f"{name} takes at most {most} tokens, got max_tokens {max_tokens}")
        width = self.encoder.config.hidden_size
        if lora:
            from peft import LoraConfig, inject_adapter_in_model

            adapters = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
            inject_adapter_in_model(adapters, self.encoder)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, num_classes)

    def init_pretrained(self, inputs: TextInput) -> TokenInput:
        """Load the pretrained weights, with a head of zeros, and return the inputs as tokens."""
        weights = read_encoder(self.name)
        adapted = {
            name: name.replace(".base_layer.", ".") for name in self.encoder.state_dict() if ".lora_" not in name
        }
        self.encoder.load_state_dict({name: weights[source] for name, source in adapted.items()}, strict=False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        return self.inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, int64 (N, L) with padding at the end, to logits (N, num_classes)."""
        mask = x != self.inputs.pad_id
        states = self.encoder(input_ids=x, attention_mask=mask.long()).last_hidden_state
        pooled = (states.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits
