"""Say what follows from the settings, once they are resolved."""

from pathlib import Path

import torch

from lvdm.sampling.plan import Plan, make_plan

RESULTS = Path("results/videocraft_v2_fifo/random_noise")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Derived:
    """Derive what others need from the fields of Options, which `lvdm.pipeline.options` declares."""

    @property
    def unet_dtype(self) -> torch.dtype:
        """The number format of the U-Net."""
        return DTYPES[self.precision]

    @property
    def steps(self) -> int:
        """Denoising steps of the base clip: the timesteps that are given, or f*n."""
        return len(self.timesteps) if self.timesteps else self.video_length * self.num_partitions

    @property
    def queue_plan(self) -> Plan:
        """The noise levels of the queue; ValueError if `plan` does not fit the window, or `timesteps`."""
        return make_plan(
            self.plan,
            window=self.video_length,
            lookahead=self.lookahead_denoising,
            slots=self.video_length * self.num_partitions,
            timesteps=self.timesteps and len(self.timesteps),
        )

    @property
    def frames(self) -> int | None:
        """Frames of a video; None without end."""
        return None if self.endless else self.new_video_length

    @property
    def frame_rate(self) -> int:
        """Frames a second of the files, with those that `interpolate` makes."""
        return self.output_fps * (self.interpolate or 1)

    @property
    def rows(self) -> int | None:
        """What `window_batch` is in rows of a batch: guidance makes two of a window, a scale of 1 one."""
        return self.window_batch and self.window_batch * (1 if self.unconditional_guidance_scale == 1 else 2)

    @property
    def offloaded(self) -> tuple[str, ...]:
        """The parts of the model that are on the device only while they compute.

        Encoders do so once a video, but that of pictures for every frame if each becomes the picture of later ones.
        """
        pictures = ("embedder", "image_proj_model")
        if self.offload:
            return ("model", "first_stage_model", "cond_stage_model", *pictures)
        return ("cond_stage_model",) if self.mode.renews_picture else ("cond_stage_model", *pictures)

    @property
    def results_root(self) -> Path:
        """The folder that results go to."""
        return RESULTS if self.output_dir is None else self.output_dir
