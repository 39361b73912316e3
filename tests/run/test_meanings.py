"""Every setting of every config has a meaning, and the help shows it."""

import dataclasses

import pytest

from nightjax import main
from nightjax.core import config_files
from nightjax.core.help import argument_lines, format_config
from nightjax.run import meanings, settings

MORE = [
    "dsr_fpa:data=cityscapes_to_dark_zurich,model=hrda,masking=both",
    "dsr_fpa:data=cityscapes_to_dark_zurich,model=refinenet",
    "dsr_fpa:aligner=uawarpc,matcher=runs/matcher",
    "dannet:data=cityscapes_to_dark_zurich",
    "nightlab:stage=regions,start=runs/image,hard=5+6",
    "pix2pixhd:data=nightcity,vgg=VGG19.npz",
    "self_training:unlabeled=nexet/night,split=train,teacher=runs/first",
    "supervised:data=folder,photometric=1",
    "supervised:data=nightcity_plus,model=upernet_swin_b,relight=1",
    "t2s_da:mode=dg",
    "unit:data=nexet,vgg=VGG16.npz",
    "vfm_uda:data=cityscapes_to_dark_zurich,tune=adapters",
]


@pytest.mark.parametrize("name", [*config_files.names(), *MORE])
def test_every_setting_has_a_meaning(name):
    config = settings.load(name)
    found = meanings.of_config(config)
    keys = [line.partition("=")[0].strip() for line in format_config(config).splitlines() if line]
    assert not [key for key in keys if not found.get(key)]


def test_meanings_are_first_sentences_of_attributes_of_base_classes_too():
    @dataclasses.dataclass
    class Base:
        """A base.

        Attributes:
            one: ``"a"`` or
                b. More of it.
        """

    class Part(Base):
        """A part.

        Attributes:
            two, three: of both.

        Raises:
            UserError: never.
        """

    assert meanings.described(Part) == {"one": '"a" or b', "two": "of both", "three": "of both"}


def test_the_help_of_a_config_has_its_arguments_and_meanings(capsys):
    with pytest.raises(SystemExit):
        main.main(["nightjax train", "--config=dsr_fpa:data=nightstreet_tiny", "--config.train.batch=2", "--help"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "DSR+FPA: dynamic and small object refinement" in "\n".join(lines)
    assert "parts=both none|dsr|fpa|both|refign" in lines
    assert "train.batch = 2 # examples of each domain a step, over all devices" in lines


def test_arguments_say_their_values():
    def get_config(data: str = "x", exposure: bool = False, steps: int | None = None, rate: float = 0.5):
        """A config."""

    assert argument_lines(get_config).split("\n") == [
        "  data=x      text",
        "  exposure=0  0|1",
        "  steps       whole number",
        "  rate=0.5    number",
    ]
