"""A PyTorch script runs after changing only its imports, and weights travel both ways."""

import contextlib
import io
import re

import numpy as np
import pytest

import tinynet
from tinynet import nn

THEIRS = """
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split
"""

OURS = re.sub(r"\btorch\.", "tinynet.", THEIRS.replace("import torch\n", "import tinynet as torch\n"))

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


# Gradients by hand: what "PyTorch from scratch" tutorials do. The numbers that begin are the same, so are all others.
BY_HAND = """
X = torch.linspace(-1.0, 1.0, 40).reshape(20, 2)
y = ((X[:, 0] + X[:, 1]) > 0).float().view(-1, 1)
w = torch.zeros(2, 1, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
for epoch in range(60):
    p = torch.sigmoid(torch.matmul(X, w) + b)
    loss = -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean() + 0.01 * torch.norm(w) ** 2
    loss.backward()
    with torch.no_grad():
        for parameter in [w, b]:
            parameter -= 0.5 * parameter.grad
    w.grad.zero_()
    b.grad = None
    if epoch % 20 == 0:
        print(f"{epoch}: {loss:.4f}, accuracy {(p.round() == y).float().mean().item():.2f}")
values, indices = torch.max(torch.cat([1 - p, p], dim=1), 1)
print(indices.tolist(), f"{values.sum().item():.3f}")

N = torch.zeros((3, 3), dtype=torch.int32)
for i, j in zip([0, 1, 1, 2], [1, 2, 2, 0]):
    N[i, j] += 1
P = (N + 1).float()
P /= P.sum(1, keepdim=True)
print(N.tolist(), P.argmax(dim=1).tolist(), P[0].sum().item())

W = torch.ones((3, 3), requires_grad=True)
xs, ys = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 2, 2, 0])
for _ in range(30):
    logits = F.one_hot(xs, num_classes=3).float() @ W
    probs = logits.exp() / logits.exp().sum(1, keepdims=True)
    loss = -probs[torch.arange(4), ys].log().mean()
    W.grad = None
    loss.backward()
    W.data += -2 * W.grad
print(f"{loss.item():.4f}", [round(x, 2) for x in W[1].tolist()])
"""

CLASSIFIER = """
class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, 1)
        self.dropout1 = nn.Dropout(0.1)
        self.fc1 = nn.Linear(36, 2)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = self.dropout1(torch.flatten(x, 1))
        return F.log_softmax(self.fc1(x), dim=1)


def init_weights(m):
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        m.bias.data.fill_(0.01)


torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
y = torch.arange(80) % 2
X = torch.randn(80, 1, 8, 8) * 0.1 + y.view(-1, 1, 1, 1)
train_set, test_set = random_split(TensorDataset(X, y), [60, 20], generator=torch.Generator().manual_seed(1))
train_loader = DataLoader(train_set, batch_size=20, shuffle=True, num_workers=0)
test_loader = torch.utils.data.DataLoader(test_set, batch_size=20)
model = Net().to(device)
model.apply(init_weights)
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = StepLR(optimizer, step_size=5, gamma=0.5)
for epoch in range(10):
    model.train()
    for data, target in train_loader:
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
    scheduler.step()
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            pred = model(data).argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
print(f"{correct}/{len(test_loader.dataset)}", scheduler.get_last_lr(), loss.item() < 0.1)
"""

LANGUAGE_MODEL = """
class Head(nn.Module):
    def __init__(self, n_embd, block_size):
        super().__init__()
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(block_size, block_size)))
        self.n_embd = n_embd

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).split(self.n_embd, dim=2)
        wei = q @ k.transpose(-2, -1) * C**-0.5
        wei = wei.masked_fill(self.tril[:T, :T] == 0, float("-inf"))
        return F.softmax(wei, dim=-1) @ v


class Model(nn.Module):
    def __init__(self, vocab_size, n_embd, block_size):
        super().__init__()
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(vocab_size, n_embd), wpe=nn.Embedding(block_size, n_embd),
            h=nn.ModuleList([Head(n_embd, block_size) for _ in range(2)]), ln_f=nn.LayerNorm(n_embd)))
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.block_size = block_size
        for name, p in self.named_parameters():
            if name.endswith("weight") and p.dim() > 1:
                torch.nn.init.normal_(p, mean=0.0, std=0.2)

    def forward(self, idx, targets=None):
        B, T = idx.size()
        pos = torch.arange(0, T, dtype=torch.long, device=idx.device).unsqueeze(0)
        x = self.transformer.wte(idx) + self.transformer.wpe(pos)
        for block in self.transformer.h:
            x = x + block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        loss = None if targets is None else F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        return logits, loss

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, top_k):
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.block_size:])
            logits = logits[:, -1, :]
            v, _ = torch.topk(logits, top_k)
            logits[logits < v[:, [-1]]] = -float("Inf")
            idx = torch.cat((idx, torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)), dim=1)
        return idx


torch.manual_seed(0)
data = torch.tensor([0, 1, 2, 3] * 20, dtype=torch.long)
model = Model(4, 8, 6)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
for step in range(80):
    ix = torch.randint(len(data) - 6, (8,))
    x, y = torch.stack([data[i:i + 6] for i in ix]), torch.stack([data[i + 1:i + 7] for i in ix])
    logits, loss = model(x, y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
print(loss.item() < 0.2, model.generate(torch.zeros((1, 1), dtype=torch.long), 7, top_k=1)[0].tolist())
print(sum(p.numel() for p in model.parameters()), list(model.state_dict())[:5])
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


def test_gradients_by_hand_print_the_same(imports):
    *epochs, classes, counts, words = printed(imports + BY_HAND)
    assert epochs == ["0: 0.6931, accuracy 0.50", "20: 0.3187, accuracy 1.00", "40: 0.2853, accuracy 1.00"]
    assert classes == "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] 16.490"
    assert counts == "[[0, 1, 0], [0, 0, 2], [1, 0, 0]] [1, 2, 0] 1.0"
    assert words == "0.0366 [-0.49, -0.49, 3.98]"


def test_a_classifier_of_images(imports):
    assert printed(imports + CLASSIFIER) == ["20/20 [0.025] True"]


def test_a_language_model(imports):
    learned, parameters = printed(imports + LANGUAGE_MODEL)
    assert learned == "True [0, 1, 2, 3, 0, 1, 2, 3]"
    assert parameters == "516 ['transformer.wte.weight', 'transformer.wpe.weight', 'transformer.h.0.tril', " \
                         "'transformer.h.0.qkv.weight', 'transformer.h.1.tril']"


# --------------------------------------------------------------------------------------------- one expression each
# x (3, 4) of floats with two zeros and no ties, t of whole numbers; results and the gradient of x are PyTorch's.

EXPRESSIONS = """
torch.sin(x) + torch.cos(x) + torch.exp(x) + torch.abs(x); torch.sqrt(x.abs() + 1); torch.log(x * x + 2).log10();
x * t; t * x; x ** t.abs(); torch.where(x > 0, x, 0); x.add(t).sub(x).mul(t).div(2); torch.pow(x, 3); torch.max(x);
torch.max(x, 1); torch.max(x, dim=0, keepdim=True); torch.min(x, 1).indices; x.max(dim=1); x.min(dim=0);
x.max(1, keepdim=True).values; torch.max(x, t); torch.argmax(x, 1); torch.mean(x, 0);
torch.sum(x, dim=1, keepdim=True); torch.std(x, 0); torch.var(x); torch.norm(x); x.norm(dim=1); (x * 0).norm();
torch.topk(x, 2); x.topk(1, dim=0); x.topk(2, largest=False).values; torch.sort(x, dim=1);
torch.sort(x, 0, descending=True).values; x.gather(1, torch.tensor([[0], [2], [1]])); torch.tril(x); torch.triu(x, 1);
x.tril(-1); x.masked_fill(t == 2, -5.0); x.split(2, dim=1); x.split([1, 2]); x.chunk(2, 1); torch.chunk(x, 2);
torch.round(x); x.round(decimals=1); x.bool(); x.view_as(t); torch.flatten(x, 1); torch.squeeze(x[:1]);
torch.unsqueeze(x, 1); torch.transpose(x, 0, 1); torch.matmul(x, x.T); torch.clamp(x, -0.5, 0.5); (x > 0) & (t > 1);
(x > 0) | (t > 1); ~(x > 0); (x > 0).all(); (t > 1).any(dim=1); torch.any(x > 0, 0); t % 3; t // 2; -t // 2;
(t - 3) % 2; x.eq(t); x.ge(0); x.ne(0); x.int(); x.type(torch.long); t.float() / 2; torch.eye(3) @ x;
torch.dot(x[0], x[1]); torch.mm(x, x.T); torch.full((2, 2), 1.5); torch.is_tensor(x); torch.softmax(x, dim=1);
torch.log_softmax(x, dim=0); torch.relu(x); torch.tanh(x) + torch.sigmoid(x); torch.numel(t); F.leaky_relu(x, 0.2);
F.l1_loss(x, t.float()); F.nll_loss(x, torch.tensor([0, 3, 1])); F.one_hot(t.abs()); x.nelement();
F.nll_loss(x, torch.tensor([0, -100, 1]), reduction="none"); F.binary_cross_entropy(torch.sigmoid(x), (t > 1).float());
F.binary_cross_entropy((t + 0.5) / 4, torch.sigmoid(x));
F.binary_cross_entropy(x.clamp(0, 1), (t > 1).float(), reduction="none"); torch.allclose(x, x + 1e-9);
torch.equal(t, t + 1); torch.FloatTensor([1, 2]); torch.LongTensor([1]); torch.Tensor([1.0, 2]); nn.Identity()(x);
nn.LeakyReLU()(x); nn.LogSoftmax(dim=1)(x); nn.L1Loss(reduction="sum")(x, t.float()); nn.ReLU(inplace=True)(x + 0);
nn.BatchNorm1d(4)(x); nn.BatchNorm1d(3)(x.view(1, 3, 4)); nn.Dropout(0.5).eval()(x); f"{x.sum():.3f}"; f"{t[0, 0]}"
"""
EXPRESSIONS = [e.strip() for e in EXPRESSIONS.split(";")]


def evaluated(torch, nn, F, expression, as_array):
    numbers = [[0.0, -1.5, 0.75, 2.0], [1.25, 0.0, -0.25, -2.0], [0.5, 3.0, -0.75, 1.0]]
    x = torch.tensor(numbers, requires_grad=True)
    y = eval(expression, {"torch": torch, "nn": nn, "F": F, "x": x, "t": torch.tensor([[1, 2, 3, 0], [2, 2, 1, 1],
                                                                                      [3, 1, 2, 2]])})
    parts = y if isinstance(y, tuple) else (y,)
    weighted = [(p * torch.arange(1, p.numel() + 1).view(p.shape)).sum()
                for p in parts if getattr(p, "requires_grad", False)]
    if weighted:
        sum(weighted).backward()
    return [as_array(p) for p in parts], as_array(x.grad) if weighted else None


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_gives_what_it_gives_in_pytorch(expression):
    torch = pytest.importorskip("torch")
    theirs, expected = evaluated(torch, torch.nn, torch.nn.functional, expression,
                                 lambda p: p.detach().numpy() if torch.is_tensor(p) else p)
    ours, gradient = evaluated(tinynet, nn, nn.functional, expression,
                               lambda p: np.asarray(p) if isinstance(p, (tinynet.Tensor, np.ndarray)) else p)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        if not isinstance(b, np.ndarray):
            assert a == b
            continue
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)
    assert gradient is None or np.allclose(gradient, expected, rtol=1e-5, atol=1e-5), (gradient, expected)
    assert (gradient is None) == (expected is None) or "round" in expression


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
