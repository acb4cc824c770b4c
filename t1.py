import digits_kit.cage as C, tempfile, nbformat, time
from pathlib import Path
orig=C._Client.process_message
n=[0,0]
def pm(self,msg,cell,i):
    n[0]+=1; n[1]+=len(msg['content'].get('text','')); return orig(self,msg,cell,i)
C._Client.process_message=pm
folder=Path(tempfile.mkdtemp())
nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("while True: print('x'*100_000)")]),folder/'nb.ipynb')
d=C.run_caged(folder/'nb.ipynb',C.Limits(seconds=20,cell=3,output=1)); print(d.reason,n)
