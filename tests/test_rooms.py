"""The picture of who may use whom, read from the code: a room imports only rooms that stand above it."""

import ast
from pathlib import Path

import pytest

KIT = Path(__file__).parents[1] / "kit" / "tunebook"
WIDGETS = KIT.parents[1] / "widgets" / "tunebook_widgets"

# A room, and the rooms it may import. Everything may also import itself.
PICTURE = """
    inert       :
    events      :
    sealed      :
    tokenizer_state :
    chat_templates :
    config      :
    torchless   :
    interrupts  :
    ending_interrupts :
    exchange    :
    scratch     : interrupts
    atomic      : exchange interrupts scratch
    private     : atomic
    runtime     : private
    decoders    :
    reach       :
    remote_images : decoders private reach runtime sealed
    images      : decoders reach remote_images
    examples    : images
    hub         :
    sources     : hub reach
    pretraining : config reach sources
    progress    : events inert
    bridges     : events
    run_lock    : private
    run_log     : interrupts events private sealed
    runs        : events inert private run_log
    audience    : events runs
    blas        : atomic runtime sealed
    tensors     :
    digit_model : tensors
    photo_tiles :
    samples     : digit_model photo_tiles
    weight_files :
    generation_config :
    trusted     : generation_config weight_files
    fused_experts : tensors
    tensor_files :
    believable  :
    checkpoint_config :
    variants    :
    vision_names : trusted variants
    layers      : tensors
    windows     : layers variants
    recompute   : layers tensors variants
    halves      : runtime
    exponentials : halves runtime
    curves      : exponentials
    stretches   : tensors variants
    gated       : curves recompute stretches tensors variants
    short_conv  : variants
    activations : curves gated runtime short_conv variants
    blockwise   : exponentials runtime
    attention   : blockwise runtime variants
    norms       : tensors variants
    neftune     : variants
    gated_delta :
    hybrid      : gated_delta runtime tensors variants
    training_form : activations attention hybrid neftune recompute variants
    saving      : config runs
    checkpoint  : private sealed tensors runs
    earlier_runs : checkpoint events run_lock runs sealed
    checkup     : runtime blas
    fetch       : atomic hub runtime progress scratch sealed
    formats     : config examples images pretraining reach sources tokenizer_state
    families    : examples images tensors tokenizer_state variants
    rowcheck    : families
    gguf        : atomic generation_config progress tensors trusted
    loader      : believable chat_templates checkpoint_config tensor_files private sealed runtime fetch fused_experts \
                  generation_config gguf families tensors tokenizer_state trusted vision_names windows
    resize      : families loader tensors
    adapter_files : tensor_files
    peft_settings :
    peft_format : peft_settings
    mlx_settings : peft_settings
    saved_adapters : adapter_files layers mlx_settings norms peft_format peft_settings tensors
    adapters    : config layers norms peft_format saved_adapters tensors
    feasibility : adapters gguf loader
    untuned     : adapters
    stored_pictures : families images reach sealed
    encoded     : families reach sealed stored_pictures
    token_cache : families loader runtime sources tokenizer_state
    account     :
    fitting     : account examples families formats pretraining
    encoding    : account private sealed encoded examples families fitting formats images loader pretraining progress \
                  reach sources token_cache tokenizer_state
    datacheck   : account encoding rowcheck
    batches     : config
    collation   : batches families
    feed        : account batches config encoded families sources
    loss        : exponentials families runtime tensors
    packing     : families loss tensors
    optim       : config norms tensors
    evaluation  : collation events families loss training_form
    costs       :
    peaks       : families layers loss tensors variants
    probing     : costs families gated layers peaks recompute runtime tensors training_form variants
    footprint   : adapters config costs families layers loader loss optim probing runtime tensors
    memory      : adapters batches config encoded families footprint layers loader runtime tensors
    base_digest : runtime
    identity    : base_digest config loader adapters families feed tensors
    sampling    : examples formats loader tokenizer_state untuned
    compiled    : batches config encoded families
    step        : collation compiled config batches families loader loss optim recompute runtime tensors \
                  training_form
    divergence  : config families step tensors
    endings     : config events runtime
    preparation : account batches config encoded encoding families feed formats loader packing pretraining \
                  resize sampling sources tensors
    controls    : events runs
    run_plan    : batches config families feed identity loader sampling
    run_progress : events feed step
    run_events  : adapters batches encoded endings events run_plan run_progress runtime step
    kept_weights : adapters events tensors
    looks       : evaluation events run_plan sampling
    loop        : checkpoint controls divergence ending_interrupts endings evaluation events families feed interrupts \
                  kept_weights \
                  looks run_events run_plan run_progress runtime saving step tensors
    trainer     : audience earlier_runs events config feasibility identity run_lock interrupts checkpoint sources \
                  formats runs memory loader batches evaluation preparation pretraining loop progress run_plan saving \
                  tensors
    export      : adapter_files peft_format atomic feasibility runtime progress tensors hub sources gguf loader \
                  adapters encoding families chat_templates checkpoint_config evaluation events examples formats \
                  fused_experts generation_config resize tokenizer_state trusted vision_names runs checkpoint scratch
    parity      : adapters batches checkpoint_config config encoded encoding evaluation examples export families \
                  fetch formats gguf layers loader loss optim progress samples sampling sources step tensors trusted \
                  variants
    fast_model  : config events families fetch sources loader norms adapter_files adapters resize sampling scratch \
                  export
    demo        : events runs
"""
ALLOWED = {
    name.strip(): set(rooms.split()) for name, rooms in (line.split(":") for line in PICTURE.strip().splitlines())
}
# What the widgets may use, and those alone that show a model.
DASHBOARD = {"events", "inert", "runs"}
NEEDS = {
    "tokens.py": {"datacheck", "encoding", "families", "formats", "loader", "pretraining", "sources", "trainer"},
    "chat.py": {"loader", "sampling", "untuned"},
    "fit.py": {"config", "footprint", "memory", "trainer"},
    "export_panel.py": {"adapters", "export", "gguf", "sources"},
}
ENTRANCES = {"__init__", "__main__"}  # they open any door, and nobody comes in through them


def imported_rooms(path: Path) -> set[str]:
    """The rooms of the kit that a file imports, wherever in the file the import stands."""
    inside = path.relative_to(KIT).parts if path.is_relative_to(KIT) else ()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            # Level 1 in a file of the package itself, or level 2 in a subpackage, is the kit.
            if node.level and node.level == len(inside):
                module = node.module or ""
            elif not node.level and (node.module or "").split(".")[0] == "tunebook":
                module = (node.module or "").partition(".")[2]
            else:
                continue
            found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tunebook.")}
    return found


def files() -> list[Path]:
    return [
        path
        for path in sorted(KIT.rglob("*.py"))
        if path.relative_to(KIT).parts[0].removesuffix(".py") not in ENTRANCES
    ]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(KIT)))
def test_a_room_imports_only_rooms_above_it(path):
    room = path.relative_to(KIT).parts[0].removesuffix(".py")
    assert room in ALLOWED, f"{room} is not in the picture; add it, with the rooms it may use"
    extra = imported_rooms(path) - ALLOWED[room] - {room}
    assert not extra, f"{path.name} imports {sorted(extra)}; the picture allows {sorted(ALLOWED[room])}"


def test_the_picture_has_no_ring_and_no_empty_room():
    above = set()
    for room, uses in ALLOWED.items():
        assert uses <= above, f"{room} uses {sorted(uses - above)}, which stands below it"
        assert (KIT / room).is_dir() or (KIT / f"{room}.py").is_file(), f"{room} is in the picture and not in the kit"
        above.add(room)


def test_the_kit_never_imports_the_widgets():
    assert not [path for path in KIT.rglob("*.py") if "tunebook_widgets" in path.read_text()]


def test_only_the_widgets_that_show_a_model_need_more_of_the_kit_than_its_events_and_run_folders():
    for path in sorted(WIDGETS.glob("*.py")):
        assert imported_rooms(path) <= NEEDS.get(path.name, DASHBOARD), path.name


def test_the_loop_does_not_know_what_kind_of_model_it_trains():
    run = ("loop.py", "looks.py", "run_plan.py", "run_events.py", "run_progress.py")
    for name in (*run, "trainer.py", "loss.py", "batches.py", "evaluation.py"):
        text = (KIT / name).read_text().lower()
        assert not [word for word in ("vision", "image", "pixel") if word in text], name
