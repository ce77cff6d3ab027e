"""A PyTorch script runs after changing only its imports, and weights travel both ways."""

import contextlib
import io
import re

import numpy as np
import pytest

import tinynet
from tinynet import nn

OURS = """
import tinynet as torch
import tinynet.nn as nn
import tinynet.optim as optim
from tinynet.data import DataLoader, Dataset
"""

THEIRS = """
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, Dataset
"""

NETWORK = """
class FeedForwardNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.act1 = nn.ReLU()
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.act2 = nn.Tanh()
        self.fc3 = nn.Linear(hidden_size, output_size)

    def forward(self, x):
        x = self.act1(self.fc1(x))
        x = self.act2(self.fc2(x))
        return self.fc3(x)
"""

RANDOM_BATCHES = NETWORK + """
torch.manual_seed(0)
model = FeedForwardNN(10, 64, 1)
criterion = nn.MSELoss()
optimizer = optim.Adam(model.parameters(), lr=0.001)

for epoch in range(10):
    inputs = torch.randn(32, 10)
    targets = torch.randn(32, 1)

    optimizer.zero_grad()
    outputs = model(inputs)
    loss = criterion(outputs, targets)
    loss.backward()
    optimizer.step()

    print(f"Epoch [{epoch + 1}/10], Loss: {loss.item():.4f}")

model.eval()
with torch.no_grad():
    print("prediction:", model(torch.zeros(1, 10)).shape)
"""

TABLE = NETWORK + """
class TableDataset(Dataset):
    def __init__(self, df, target_column):
        self.features = df.drop(columns=[target_column]).values
        self.targets = df[target_column].values

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, idx):
        features = torch.tensor(self.features[idx], dtype=torch.float32)
        target = torch.tensor(self.targets[idx], dtype=torch.float32).unsqueeze(0)
        return features, target


def data_loader(df, target_column, batch_size, shuffle):
    return DataLoader(TableDataset(df, target_column), batch_size=batch_size, shuffle=shuffle)


torch.manual_seed(0)
loader = data_loader(df, "target", batch_size=16, shuffle=True)
model = FeedForwardNN(3, 16, 1)
criterion = nn.MSELoss()
optimizer = optim.Adam(model.parameters(), lr=0.01)
for epoch in range(30):
    running = 0.0
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        running += loss.item() * inputs.size(0)
    print(f"Epoch [{epoch + 1}/30], Loss: {running / len(loader.dataset):.4f}")
"""


@pytest.fixture(params=["tinynet", "torch"])
def imports(request):
    pytest.importorskip(request.param)
    return OURS if request.param == "tinynet" else THEIRS


def printed(script, **names):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(script, "script.py", "exec"), names)
    return out.getvalue().splitlines()


def test_a_network_on_random_batches(imports):
    *epochs, prediction = printed(imports + RANDOM_BATCHES)
    assert [re.fullmatch(r"Epoch \[(\d+)/10\], Loss: \d\.\d{4}", line)[1] for line in epochs] == [
        str(i) for i in range(1, 11)]
    assert re.fullmatch(r"prediction: (torch\.Size\(\[1, 1\]\)|\(1, 1\))", prediction)


def test_a_regression_from_a_table(imports):
    pd = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(100, 3))
    df = pd.DataFrame(X, columns=list("abc")).assign(target=X[:, 0] * 2 - X[:, 1])
    losses = [float(line.rpartition(" ")[2]) for line in printed(imports + TABLE, df=df)]
    assert len(losses) == 30 and losses[-1] < 0.1 < 1 < losses[0]


# ------------------------------------------------------------------------------------------------------------- weights

def both():
    """The network of the script, in PyTorch and here."""
    torch, models = pytest.importorskip("torch"), []
    torch.manual_seed(1)
    tinynet.manual_seed(2)
    for imports in (THEIRS, OURS):
        names = {}
        exec(imports + NETWORK + "model = FeedForwardNN(10, 64, 3)", names)
        models.append(names["model"])
    return torch, *models


def agree(torch, theirs, ours):
    x = np.random.default_rng(0).normal(size=(32, 10)).astype(np.float32)
    with torch.no_grad():
        a, b = theirs(torch.from_numpy(x)).numpy(), ours(tinynet.tensor(x)).detach().numpy()
    return bool(np.abs(a - b).max() < 1e-6)


def npz(path):
    return (lambda state: np.savez(path, **state)), (lambda: dict(np.load(path)))


def safetensors(path):
    files = pytest.importorskip("safetensors.numpy")
    return (lambda state: files.save_file(state, path)), (lambda: files.load_file(path))


@pytest.mark.parametrize("file", [npz, safetensors])
def test_weights_travel_from_pytorch(tmp_path, file):
    torch, theirs, ours = both()
    save, load = file(tmp_path / "weights.npz")
    assert list(ours.state_dict()) == list(theirs.state_dict()) and not agree(torch, theirs, ours)
    save({name: x.numpy() for name, x in theirs.state_dict().items()})
    ours.load_state_dict(load())
    assert agree(torch, theirs, ours)


@pytest.mark.parametrize("file", [npz, safetensors])
@pytest.mark.parametrize("engine", ["tensor", "scalar"])
def test_weights_travel_to_pytorch(tmp_path, file, engine):
    torch, theirs, ours = both()
    save, load = file(tmp_path / "weights.npz")
    state = ours.to(engine).state_dict()
    assert {name: x.shape for name, x in state.items()} == {n: tuple(x.shape) for n, x in theirs.state_dict().items()}
    save(state)
    theirs.load_state_dict({name: torch.from_numpy(x) for name, x in load().items()})
    assert agree(torch, theirs, ours.to("tensor"))


def test_a_state_dict_of_pytorch_is_read_as_it_is():
    torch, theirs, ours = both()
    ours.load_state_dict(theirs.state_dict())
    assert agree(torch, theirs, ours)


def test_losses_and_gradients_agree_with_pytorch():
    torch, theirs, ours = both()
    ours.load_state_dict(theirs.state_dict())
    ours, theirs = ours.double(), theirs.double()
    x, y = np.random.default_rng(0).normal(size=(32, 10)), np.random.default_rng(1).normal(size=(32, 3))
    expected = torch.nn.MSELoss()(theirs(torch.from_numpy(x)), torch.from_numpy(y))
    expected.backward()
    loss = nn.MSELoss()(ours(tinynet.tensor(x)), tinynet.tensor(y))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert np.allclose(p.grad, q.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_targets_that_pytorch_ignores(reduction):
    torch = pytest.importorskip("torch")
    logits, g = np.random.default_rng(0).normal(size=(6, 4)), np.arange(1.0, 7)
    for target, ignored in (([0, -100, 3, 1, -100, 2], -100), ([2, 0, 2, 1, 0, 2], 2), ([-100] * 6, -100)):
        a, b = tinynet.tensor(logits).requires_grad_(), torch.tensor(logits, requires_grad=True)
        ours = nn.CrossEntropyLoss(reduction=reduction, ignore_index=ignored)(a, tinynet.tensor(target))
        theirs = torch.nn.CrossEntropyLoss(reduction=reduction, ignore_index=ignored)(b, torch.tensor(target))
        np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12)
        g = g if reduction == "none" else np.array(2.0)
        ours.backward(g)
        theirs.backward(torch.tensor(g))
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-12, atol=1e-15)
