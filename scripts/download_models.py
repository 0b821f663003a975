"""Download a published model from Hugging Face: `python scripts/download_models.py base_512_v2`."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from lvdm.cli.command import Parser, with_error_lines
from lvdm.models.published import PUBLISHED
from lvdm.runtime.errors import one_line


@with_error_lines
def main() -> int:
    """Download the model, unless it is there already."""
    parser = Parser(__doc__)
    parser.add_argument("name", choices=PUBLISHED, help="the model")
    arguments = parser.parse_args()
    model = PUBLISHED[arguments.name]
    target = Path(__file__).resolve().parents[1] / model.path
    if target.exists():
        print(f"{target} is already there")
        return 0
    print(f"{model.repository}, {model.filename}: {model.size}; licence: {model.licence}", flush=True)
    try:
        downloaded = hf_hub_download(model.repository, model.filename, local_dir=target.parent)  # with a progress bar
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = one_line(error)[:300]
        raise OSError(f"{arguments.name} could not be downloaded from {model.repository}: {reason}") from error
    if Path(downloaded) != target:
        shutil.move(downloaded, target)
    print(f"{target} is complete; it is for --config {model.config}")
    if model.needs:
        print(f"it needs another one, too: python scripts/download_models.py {model.needs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
