"""Lightning is given the batches as they are, also where a run goes on inside an epoch."""

import pytorch_lightning as pl
import torch
from numbered import collect, equal, image_data

from certtrain.data.augment import Augmentation
from certtrain.data.sampler import ShuffledBatches


class Recorder(pl.LightningModule):
    """Notes what Lightning passes on; training is a single weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated, self.tested = [], [], []

    def training_step(self, batch, batch_idx):
        inputs, _ = batch
        self.trained.append((self.current_epoch, batch_idx, inputs))
        return self.weight * inputs.mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch[2])

    def test_step(self, batch, batch_idx):
        self.tested.append(batch[2])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", logger=False, num_sanity_val_steps=0, **(quiet | options))


def test_lightning_trains_validates_and_tests():
    data = image_data(augment=Augmentation(crop=1, flip=True))
    module, fit = Recorder(), trainer(max_epochs=2)
    fit.fit(module, datamodule=data)
    assert isinstance(fit.train_dataloader.sampler, ShuffledBatches)
    fit.test(module, datamodule=data, verbose=False)
    assert [(epoch, number) for epoch, number, _ in module.trained] == [(e, n) for e in (0, 1) for n in range(11)]
    for epoch in (0, 1):
        seen = [(inputs,) for at, _, inputs in module.trained if at == epoch]
        assert equal(seen, [batch[:1] for batch in collect(data, epoch)])
    assert torch.equal(torch.cat(module.validated), data.validation_rows.repeat(2))
    assert torch.cat(module.tested).tolist() == list(range(7))


def test_lightning_without_validation():
    module = Recorder()
    trainer(max_epochs=1).fit(module, datamodule=image_data(validation=0.0))
    assert len(module.trained) == 12
    assert module.validated == []


def test_lightning_resumes_inside_an_epoch(tmp_path):
    whole = Recorder()
    trainer(max_epochs=2).fit(whole, datamodule=image_data())

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 14:
                trainer.save_checkpoint(tmp_path / "at14.ckpt")

    trainer(max_steps=15, callbacks=[Save()]).fit(Recorder(), datamodule=image_data())

    class Resume(pl.Callback):
        def on_train_start(self, trainer, module):
            trainer.train_dataloader.sampler.resume(epoch=1, start=3)

    rest = Recorder()
    trainer(max_epochs=2, callbacks=[Resume()]).fit(rest, datamodule=image_data(), ckpt_path=tmp_path / "at14.ckpt")
    assert [step[:2] for step in rest.trained] == [step[:2] for step in whole.trained[14:]]
    assert equal([step[2:] for step in rest.trained], [step[2:] for step in whole.trained[14:]])
