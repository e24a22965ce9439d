"""Train, write the model for Stable-Baselines3 and as ONNX, and look inside without either."""

import zipfile

import numpy as np

import tradax

result = tradax.train(env="CartPole-v1", total_timesteps=50_000, seed=1)

(model,) = tradax.export(result.run_dir, "sb3")
print(f"{model}: stable_baselines3.PPO.load opens it; its entries are")
print("  " + ", ".join(zipfile.ZipFile(model).namelist()))

policy = tradax.load_policy(model)  # reads only what tradax wrote
print("action", int(policy.act(np.zeros(4))))

try:
    (graph,) = tradax.export(result.run_dir, "onnx")
    print(f"{graph}: onnxruntime runs it")
except tradax.TradaxError as error:
    print(error)  # without the extra tradax[onnx]
