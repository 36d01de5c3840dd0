"""A conditioner of one's own: light as a vector (brightness, contrast) and as a map (a blurred grey picture).

Trains for a minute on the drawn portraits, then asks for the same picture under another light.
"""

import torch
import torch.nn.functional as F

import condgen


@condgen.register_encoder("light")
class Light(condgen.Encoder):
    """Brightness and contrast of a picture, and where in it the light is."""

    reads = ("image",)
    vector_size = 2
    map_channels = 1

    def encode(self, batch):
        grey = batch["image"].float().mean(1, keepdim=True) / 255 - 0.5  # (B, 1, H, W)
        vector = torch.stack([grey.mean((1, 2, 3)), grey.std((1, 2, 3))], dim=1)  # (B, 2)
        coarse = F.interpolate(F.adaptive_avg_pool2d(grey, 3), grey.shape[2:], mode="bilinear")
        return condgen.Condition(vector=vector, map=coarse)


if __name__ == "__main__":
    run = condgen.train("quickstart", {"encoder.type": "light", "train.max_minutes": 1}, out="runs/light")
    model = condgen.load(run)
    photo = condgen.open_data(model.recipe.data, "test").batch([0])["image"]
    h = model.encode(image=photo)
    brighter = condgen.Condition(h.vector + 0.2, h.map + 0.2)
    pictures = model.sample(condgen.Condition.stack([h, brighter]), count=2, seed=1)
    before, after = (part.float().mean().item() for part in pictures.split(2))
    print(f"{len(pictures)} pictures; mean level {before:.0f}, brighter {after:.0f}")
