"""One file = one algorithm, always in this order, so that the difference of two files is the difference of two papers:

TITLE                    optional: its name as papers write it, by default the file's name
Hyper                    its numbers, each with its source; floats reach the code as [K, 1], so members may differ in them
                         with `n_step`, minibatches look as many steps ahead; `agent.td_target` computes the targets
RANGES                   optional: name -> interval of valid values, beside those in trainables/trial/hyper_ranges.py
NORMALIZE                whether observations are normalized with the dataset's mean and standard deviation
REWARD_SPAN              optional: rewards are multiplied so that the returns of the dataset's episodes span so much: one number for all
                         datasets, or one for those whose ids contain a name, by name
NETWORKS                 optional: the values of a trial's `network` that it can be trained with; by default all
NEXT_ACTIONS             optional: True if minibatches carry the dataset's next actions too
RETURNS                  optional: True if minibatches carry the discounted return from each transition on too
POLICY                   optional: the networks that `act` needs, if it needs more than the actor
networks(O, A, hyper)    name -> MLP
LEARNING_RATES, TARGETS  network -> field of Hyper; networks that have a target
<network>_loss           each [K]; LOSSES says which loss scores which network before training
LEAKY_LOSSES             optional: the losses of networks that the authors' code scores with a leaky critic gradient
update(agent, batch)     one update; returns what is logged, each [K]
act(agent, observations) the evaluation policy, [K, E, O] -> [K, E, A] in [-1, 1]
"""
